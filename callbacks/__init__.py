"""What a run does beside training: pictures, cache files, limits. Named by recipes in YAML, imported by nobody."""
