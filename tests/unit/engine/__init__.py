"""Tests of the engine room, without servers and without sleeping."""
