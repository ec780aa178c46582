"""The stand-ins' process."""
