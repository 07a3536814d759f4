"""System: Unix processes, signals, files and file descriptors.

Rule of the package: it knows nothing about workers, queues or counts. Other packages may import any
of its modules.
"""
