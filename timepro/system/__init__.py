"""The machine: files, processes, network, device. What every package needs and no library has."""
