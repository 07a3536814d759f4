"""System: Unix, and nothing of ours.

Rule of the package: processes, signals, files and descriptors; whoever uses it says what they are
for. Every room is a door.
"""
