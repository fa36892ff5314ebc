"""The chart, the manifests made from it, and the image, on real parts."""
