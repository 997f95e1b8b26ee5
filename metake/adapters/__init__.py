"""A weight update as a LoRA adapter: PEFT folders, GGUF files, model cards."""
