// Goroutines, channels, timers, a mutex and the garbage collector, with results that can be checked.
package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

type job struct{ seed, rounds uint64 }
type result struct{ seed, value uint64 }

var failures int64

func check(holds bool, format string, arguments ...interface{}) {
	if !holds {
		atomic.AddInt64(&failures, 1)
		os.Stderr.WriteString("FAIL: " + fmt.Sprintf(format, arguments...) + "\n")
	}
}

func compute(seed, rounds uint64) uint64 {
	value := seed
	for i := uint64(0); i < rounds; i++ {
		value = value*6364136223846793005 + 1442695040888963407
	}
	return value
}

// churn keeps the collector busy and checks that what lives keeps its content.
func churn(stop chan struct{}, group *sync.WaitGroup) {
	defer group.Done()
	kept := make([][]byte, 64)
	sums := make([]uint32, 64)
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		slot := i % len(kept)
		if kept[slot] != nil {
			check(crc32.ChecksumIEEE(kept[slot]) == sums[slot], "content of slot %d changed", slot)
		}
		data := make([]byte, 4096+i%8192)
		for j := range data {
			data[j] = byte(i * j)
		}
		kept[slot], sums[slot] = data, crc32.ChecksumIEEE(data)
		if i%256 == 0 {
			runtime.GC()
		}
		time.Sleep(100 * time.Microsecond)
	}
}

func ticks(stop chan struct{}, group *sync.WaitGroup) {
	defer group.Done()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			now := time.Now()
			check(!now.Before(last), "clock went back from %v to %v", last, now)
			last = now
		}
	}
}

func main() {
	const workers = 32
	jobs, results := make(chan job), make(chan result, 4)
	stop := make(chan struct{})
	var group, consumers sync.WaitGroup
	var mutex sync.Mutex
	var sent, received, locked uint64

	expected := map[uint64]uint64{}
	for seed := uint64(0); seed < 64; seed++ {
		expected[seed] = compute(seed, 20000)
	}
	beat, err := os.OpenFile("beat", os.O_RDWR|os.O_CREATE, 0644)
	if err != nil {
		panic(err)
	}
	for i := 0; i < workers; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for todo := range jobs {
				results <- result{todo.seed, compute(todo.seed, todo.rounds)}
				mutex.Lock()
				locked++
				mutex.Unlock()
			}
		}()
	}
	group.Add(2)
	go churn(stop, &group)
	go ticks(stop, &group)
	go func() {
		for {
			select {
			case <-stop:
				close(jobs)
				return
			case jobs <- job{sent % 64, 20000}:
				sent++
			}
		}
	}()
	consumers.Add(1)
	go func() {
		defer consumers.Done()
		var word [8]byte
		for done := range results {
			check(done.value == expected[done.seed], "job %d gave %d", done.seed, done.value)
			received++
			if received%16 == 0 {
				binary.LittleEndian.PutUint64(word[:], received)
				beat.WriteAt(word[:], 0)
			}
		}
	}()
	os.Stderr.WriteString("ready\n")
	for {
		if _, err := os.Stat("go"); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	close(stop)
	group.Wait()
	close(results)
	consumers.Wait()
	check(sent == received && locked == received, "sent %d, received %d, locked %d", sent, received, locked)
	if failures == 0 {
		os.Stderr.WriteString("PASS\n")
	} else {
		os.Exit(1)
	}
}
