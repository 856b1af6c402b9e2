"""A sound bank of the user's own: recordings of single sounds, mixed into soundscapes with exact times.

    BANK/glass_breaking/*.wav        a folder a class; its name is the label
    BANK/door/kitchen/*.flac         recordings of one source in a sub-folder: they stay in one part of the split
    BANK/door/captions.txt           optional: a caption a line, for dense captions
    BANK/backgrounds/*.ogg           optional: what the events are mixed into; without it, synthetic noise

`layout.py` lists a bank, `measure.py` finds where a recording's sound begins and ends, `bank.py` checks all of it and
splits it by source, `mixing.py` gives the synthesiser its sounds, `overview.py` describes a bank to people.
"""
