"""The live page: what is heard now, the last hours, alerts with picture and sound. Nothing is loaded from elsewhere."""
