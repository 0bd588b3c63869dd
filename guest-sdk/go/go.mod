module leasehold.dev/agent

go 1.25
