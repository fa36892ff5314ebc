"""The engine room: what turns keys into reconciled objects. Knows neither kopf, httpx nor kubernetes."""
