"""Generators: documentation, the chart's schema and Argo CD's ConfigMap, from code, CRD and chart (``make docs``)."""
