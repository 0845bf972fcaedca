"""A term by itself, without a network: targets from feature maps, and its loss for another one."""

from __future__ import annotations

from nst_lightning.losses import Layer, Window


class Alone:
    """A term at one layer.

    Args:
        term: The term.
        content: (1, C, h, w) features.
        styles: Features, part of the blend, and weights of cells if there are any.
        weights: Of the image's cells.
        start: (1, C, h, w) features of the picture that a stage starts from; by default the content's.
        projection: Of features with fewer channels.
    """

    def __init__(self, term, content, styles, *, weights=None, projection=None, layer="relu1_1", start=None):
        self.term, self.weights = term, weights
        self.layer = Layer(layer, projection)
        kept = []
        for features, part, *given in styles:
            kept.append((self._kept(term.style_reference(self.layer), features, *given), part))
        self.style = term.style_target(self.layer, kept)
        self.target = term.target(
            self.layer, self._kept(term.content_reference(self.layer), content, weights), self.style
        )
        if term.needs_start:
            begun = self._kept(term.start_reference(self.layer), content if start is None else start, weights)
            self.target = term.start_target(self.layer, begun, self.target)

    @staticmethod
    def _kept(reference, features, weights=None):
        if reference is None:
            return None
        reference.add(features, Window.whole(features, weights))
        return reference.result(features[0, 0].numel() if weights is None else float(weights.sum()))

    def value(self, features):
        """The loss of (1, C, h, w) features."""
        target, window = self.target, Window.whole(features, self.weights)
        if self.term.needs_counts:
            target = self.term.counted(
                self.layer, target, self.term.count(self.layer, features.detach(), window, target)
            )
        measure = self.term.measure(self.layer, features, window, target)
        if self.term.additive:
            return measure
        cells = features[0, 0].numel() if self.weights is None else self.weights.sum()
        return self.term.loss(self.layer, measure / cells, target)


def whole_walk(network):
    """The way through whole pictures that `Extractor.rescaled` takes."""

    def walk(image, layers):
        for layer, features in network.iterate(image, layers):
            yield layer, features, 1.0

    return walk
