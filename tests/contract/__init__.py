"""What every registry must show, run over the fake and over real registries."""
