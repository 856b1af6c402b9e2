"""What the installed environment must be: pinned versions, the installer, the repair of CPU wheels, and a doctor."""
