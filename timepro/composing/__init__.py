"""`timepro compose`: a checkpoint of a supported family from a pretrained audio encoder and a decoder.

`encoder.py` reads Whisper encoders (of transformers or CTranslate2, `ctranslate2.py`) and those of this project's
families, `decoder.py` Qwen2 and Llama decoders, `compose.py` puts both into the family's class and writes the folder.
"""
