"""Everything that is drawn: clips, training curves, errors, attention. One module a kind of picture; what they share:

- `files.py`: which endings are known, and default names, different for different pictures;
- `canvas.py`: pages measured in inches, texts that fit, files written in one step;
- `class_styles.py`: one look a class, the same in every picture of a run;
- `spectrogram.py`: the log-mel spectrogram that lies above a time axis.
"""
