// A vCenter by govmomi's simulator, for the tests: machines of every state in datacenters of odd names. It prints its
// address and ends when standard input does.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"io/ioutil"
	"net/url"
	"os"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

var powers = []types.VirtualMachinePowerState{"poweredOn", "poweredOn", "poweredOn", "poweredOff", "suspended"}
var connections = []types.VirtualMachineConnectionState{"disconnected", "inaccessible", "invalid", "orphaned"}

func fill(n int, vm *simulator.VirtualMachine) {
	vm.Name = fmt.Sprintf("web%%2f%d ü & <%d>", n, n)
	vm.Runtime.PowerState = powers[n%len(powers)]
	created := time.Date(2024, 1, 1, n%24, n%60, 0, 123456000, time.UTC)
	vm.Config.Name, vm.Config.Template = vm.Name, n%13 == 7
	vm.Config.CreateDate, vm.Config.Modified = &created, created.Add(time.Duration(n)*time.Hour)
	if n%11 == 5 {
		vm.Config.CreateDate, vm.Config.Modified = nil, time.Unix(0, 0).UTC()
	}
	vm.Config.Hardware.NumCPU, vm.Config.Hardware.MemoryMB = int32(1+n%8), int32(512*(1+n%5))
	for i := 0; i < n%4; i++ {
		disk := &types.VirtualDisk{CapacityInKB: int64(1+i) * 10 * 1024 * 1024}
		disk.Key = int32(3000 + i)
		if i%2 == 0 {
			disk.CapacityInBytes = disk.CapacityInKB*1024 + int64(i)
		}
		vm.Config.Hardware.Device = append(vm.Config.Hardware.Device, disk)
	}
	vm.Guest.Net, vm.Guest.IpAddress = nil, ""
	if vm.Runtime.PowerState == "poweredOn" {
		own := []string{fmt.Sprintf("10.1.%d.%d", n/250, n%250+1), fmt.Sprintf("2001:db8::%x", n+1), "fe80::1"}
		vm.Guest.Net = []types.GuestNicInfo{
			{DeviceConfigId: -1, IpAddress: []string{"172.17.0.1"}},
			{DeviceConfigId: 4000, IpAddress: own},
			{DeviceConfigId: 4001, IpAddress: []string{fmt.Sprintf("122.1.%d.%d", n/250, n%250+1)}},
		}
		vm.Guest.IpAddress = own[0]
	}
	if n%9 == 8 {
		vm.Runtime.ConnectionState = connections[n/9%len(connections)]
		if n/9%len(connections) > 0 { // its files cannot be read
			vm.Config, vm.Guest = nil, nil
		}
	}
}

func main() {
	machines := flag.Int("machines", 20, "in each of two datacenters")
	user := flag.String("user", "", "that may log in; the password is the first line of standard input")
	version := flag.String("version", "6.7", "of the API")
	pem, key := flag.String("pem", "", "certificate"), flag.String("key", "", "")
	flag.Parse()
	var password string
	fmt.Scanln(&password)

	model := simulator.VPX()
	model.ServiceContent.About.ApiVersion = *version
	model.Datacenter, model.Folder, model.Host, model.ClusterHost, model.App = 2, 1, 0, 2, 1
	model.Machine = *machines / 2 // in a pool, and in an app
	defer model.Remove()
	if err := model.Create(); err != nil {
		panic(err)
	}
	for n, vm := range simulator.Map.All("VirtualMachine") {
		fill(n, vm.(*simulator.VirtualMachine))
	}
	for n, center := range simulator.Map.All("Datacenter") {
		center.(*simulator.Datacenter).Name = []string{"Datacenter1", "Köln %2f DC 2"}[n]
	}
	model.Service.Listen = &url.URL{User: url.UserPassword(*user, password)}
	if *pem != "" {
		pair, err := tls.LoadX509KeyPair(*pem, *key)
		if err != nil {
			panic(err)
		}
		model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	server := model.Service.NewServer()
	fmt.Println(server.URL.Scheme + "://" + server.URL.Host)
	io.Copy(ioutil.Discard, os.Stdin)
	server.Close()
}
