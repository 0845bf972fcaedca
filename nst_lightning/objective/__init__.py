"""The weighted terms over the features of an image: targets, loss and gradient, whole or in tiles."""
