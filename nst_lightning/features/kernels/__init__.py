"""Convolutions and pooling of a frozen network, as fast as the processor allows."""
