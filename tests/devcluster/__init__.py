"""Tests of the dev cluster: what all other tests stand on."""
