"""A weight update as an adapter: PEFT adapters, GGUF adapters, model cards."""
