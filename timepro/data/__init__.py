"""Data: manifests, audio files and synthetic soundscapes."""
