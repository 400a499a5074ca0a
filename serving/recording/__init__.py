"""The log of predictions: chooses, copies, encodes and keeps what was asked and answered; reads it again."""
