"""What a run is doing, from files that its processes keep up to date: `timepro status`."""
