// Package emulator runs the services that twinegress sends to, inside one
// process: an AMQP 1.0 namespace with event hubs and Service Bus topics, Event
// Grid topics over HTTPS, and (see StartKafka) a Kafka broker to feed from.
//
// The official SDKs connect to it unmodified. It checks what the real services
// check (SAS signatures and expiry, entity names, size limits, the Event Grid
// schema), counts what arrives, optionally records the last messages, and injects
// faults at run time: see Fault.
//
// It costs little CPU, because benchmarks share the machine with it: it counts a
// delivery by walking the section headers of its messages, decodes a message only
// when it is read, and has no goroutine per message that no fault delays.
//
//	e, err := emulator.Start(ctx, emulator.Config{
//		Hubs:            []emulator.Hub{{Name: "twins"}},
//		Topics:          []emulator.Topic{{Name: "alerts"}},
//		EventGridTopics: []emulator.GridTopic{{Name: "grid"}},
//	})
//	defer e.Close()
//	client, err := azeventhubs.NewProducerClientFromConnectionString(
//		e.ConnectionString(emulator.Primary), "twins", nil)
//	...
//	e.SetFault("twins", emulator.Fault{RejectKey: "primary"})
//	fmt.Println(e.Stats().Entity("twins").Count)
package emulator
