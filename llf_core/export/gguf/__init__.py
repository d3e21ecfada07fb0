"""GGUF files: converted by llama.cpp's converter, quantized and checked by llama.cpp."""
