"""Work on other devices and machines: the one room that knows Ray and JAX' way of computing over several processes."""
