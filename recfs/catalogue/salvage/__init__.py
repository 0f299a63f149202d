"""What may still be read of a catalogue that is not believed as a whole."""
