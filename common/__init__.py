"""What every package may use: errors, files, flags, devices, threads. Imports nothing of the project."""
