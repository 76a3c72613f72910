// Command hello is the smallest thing worth running in a pod: it says hello and runs until it is told to end.
// It also serves as the pod sandbox's process, whose job is the same without the greeting.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if len(os.Args) > 1 {
		fmt.Println(os.Args[1])
	}
	// As process 1 it inherits orphans; ignoring their end makes the kernel collect them.
	signal.Ignore(syscall.SIGCHLD)
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
}
