"""The benchmark behind scripts/bench.

`targets` are the things measured (a plain directory, recfs, a peer), `small`, `bulk`, `cold` and `startup`
hold the workloads, `rows` lists them with their bars, `runner` interleaves them, `report` prints, `profile`
looks inside the daemon. Nothing in the tests asserts a number from here: machines differ, ratios within one
run do not lie.
"""
