"""The command line, one file a command. `__main__` lists the commands, `frame` has what they share."""
