"""Pictures and texts that the package makes itself, to prove files on."""
