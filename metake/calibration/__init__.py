"""Default settings that are measured on the model at hand: strength, lookup, layers and step sizes."""
