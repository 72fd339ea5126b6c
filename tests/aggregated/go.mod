module aggregated

go 1.26
