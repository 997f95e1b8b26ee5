"""The commands of the command line, one per file. Nothing here imports torch before a command needs it."""
