// What answers an HTTP-01 challenge: upstream's solver, with the flags that the controller gives it.
package main

import (
	"flag"
	"log"

	"github.com/cert-manager/cert-manager/pkg/issuer/acme/http/solver"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
)

func main() {
	var answers solver.HTTP01Solver
	flag.IntVar(&answers.ListenPort, "listen-port", 8089, "port to listen on")
	flag.StringVar(&answers.Domain, "domain", "", "host that is asked for")
	flag.StringVar(&answers.Token, "token", "", "token of the challenge")
	flag.StringVar(&answers.Key, "key", "", "answer to it")
	flag.Parse()
	log.Fatal(answers.Listen(logf.Log))
}
