"""The benchmark behind scripts/bench and scripts/bench-chart.

`target`, `recfs_target` and `peers` are the things measured, `fleet` says which of them there are; `small`,
`streams`, `scattered`, `parallel`, `remux`, `cold`, `startup`, `beside` and `behind` hold the workloads, `rows` lists
them, `spec` and `bars` say what is promised for them, `runner` interleaves them, `report` prints, `chart` draws,
`profile` looks inside the daemon. For the S3 tier `s3_targets` are the things measured, `s3_rows` the workloads,
`s3_direct` is the library by itself, `s3_count` counts requests; `s3_clients` is behind scripts/bench-s3-clients.
Nothing in the tests asserts a number from here: machines differ, ratios within one run do not lie.
"""
