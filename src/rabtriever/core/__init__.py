"""What every room stands on: artefacts and their manifests, strict settings, progress lines, seeds.

It knows neither data nor models, and imports no other room and no torch at import.
"""
