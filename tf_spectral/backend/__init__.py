"""The only door to a backend and to Keras' private parts."""
