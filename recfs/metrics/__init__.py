"""Metrics in Prometheus' text format, over HTTP.

requests   what the kernel asked for, counted as it is answered
happened   what became of files, counted as it happens
looking    everything else, looked at when it is asked for
families   metrics made of both
endpoint   who is answered, and for how long
"""
