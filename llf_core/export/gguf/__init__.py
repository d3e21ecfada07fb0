"""GGUF files: converted by llama.cpp's converter, quantized and checked by llama.cpp, each in a process of its own."""
