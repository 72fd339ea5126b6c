module webhook

go 1.26
