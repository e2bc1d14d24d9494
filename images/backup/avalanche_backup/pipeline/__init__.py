"""From a source's bytes to a stored object and back: hashing, compression, encryption, upload, read-back. Knows no kind of source or store."""
