"""From what people type or write in YAML to settings: presets, the parser, other programs' words, going on."""
