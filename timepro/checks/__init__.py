"""What can be known of samples before a model is loaded: whether this model can take them, by manifest, line and id."""
