"""`timepro monitor`: a checkpoint that listens to a stream for days, and says what it hears to whoever asked for it."""
