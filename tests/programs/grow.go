// A Go program whose heap grows by 32 MiB. It imports next to nothing: what it imports is compiled anew.
package main

import "os"

var kept [][]byte

//go:noinline
func keepSlices() {
	for i := 0; i < 512; i++ {
		slice := make([]byte, 64<<10)
		for at := range slice {
			slice[at] = byte(i)
		}
		kept = append(kept, slice)
	}
}

// A line can arrive in pieces.
func waitForLine() {
	one := []byte{0}
	for one[0] != '\n' {
		if _, err := os.Stdin.Read(one); err != nil {
			return
		}
	}
}

func main() {
	os.Stdout.WriteString("ready 0\n")
	waitForLine()
	keepSlices()
	os.Stdout.WriteString("{\"pid\":0,\"sites\":[]}\n")
	waitForLine()
}
