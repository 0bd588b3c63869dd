module survey-go

go 1.25

require leasehold.dev/agent v0.1.0

replace leasehold.dev/agent => ../../guest-sdk/go
