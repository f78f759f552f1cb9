/*
 * The map of the machine: which ports, addresses and interrupt numbers the board gives to whom.
 *
 * One place for what the devices (device/), the firmware tables (boot/) and the board (vm/) must
 * agree on. The layout is that of a PC with an ICH9-like south bridge: what an operating system
 * expects when it probes without tables is where it always was, and the rest is found through ACPI.
 */
#pragma once

/* Device memory. RAM ends at 0xc0000000 (memory/memory.h) and goes on at 4 GiB. */
#define PLATFORM_PCI_MMIO_BASE 0xc0000000ull /* where BARs are placed */
#define PLATFORM_PCI_MMIO_BYTES 0x20000000ull
#define PLATFORM_ECAM_BASE 0xe0000000ull
#define PLATFORM_ECAM_BYTES 0x10000000ull	/* 1 MiB a bus, 256 buses */
#define PLATFORM_VIRTIO_MMIO_BASE 0xfea00000ull /* virtio devices on the MMIO transport */
#define PLATFORM_VIRTIO_MMIO_BYTES 0x1000ull
#define PLATFORM_VIRTIO_MMIO_MAX 16
#define PLATFORM_IOAPIC_BASE 0xfec00000ull
#define PLATFORM_IOAPIC_BYTES 0x1000ull
#define PLATFORM_HPET_BASE 0xfed00000ull
#define PLATFORM_HPET_BYTES 0x400ull
#define PLATFORM_LAPIC_BASE 0xfee00000ull
#define PLATFORM_LAPIC_BYTES 0x1000ull

/* Ports. */
#define PLATFORM_PIC_MASTER_PORT 0x20
#define PLATFORM_PIC_SLAVE_PORT 0xa0
#define PLATFORM_ELCR_PORT 0x4d0
#define PLATFORM_PIT_PORT 0x40
#define PLATFORM_SPEAKER_PORT 0x61
#define PLATFORM_I8042_DATA_PORT 0x60
#define PLATFORM_I8042_COMMAND_PORT 0x64
#define PLATFORM_RTC_PORT 0x70
#define PLATFORM_POST_PORT 0x80 /* writes are a BIOS's progress codes, and Linux's io_delay */
#define PLATFORM_DELAY_PORT 0xed
#define PLATFORM_FAST_A20_PORT 0x92
#define PLATFORM_DEBUG_EXIT_PORT 0xf4
#define PLATFORM_DEBUG_EXIT_PORTS 4
#define PLATFORM_DEBUG_CONSOLE_PORT 0xe9
#define PLATFORM_COM1_PORT 0x3f8
#define PLATFORM_COM2_PORT 0x2f8
#define PLATFORM_ACPI_PORT 0x600 /* 16 ports: the next three */
#define PLATFORM_PM1A_EVENT_PORT 0x600
#define PLATFORM_PM1A_CONTROL_PORT 0x604
#define PLATFORM_PM_TIMER_PORT 0x608
#define PLATFORM_PCI_ADDRESS_PORT 0xcf8
#define PLATFORM_RESET_PORT 0xcf9 /* inside the PCI ports, as on every PC */
#define PLATFORM_RESET_VALUE 6
#define PLATFORM_PCI_IO_BASE 0x1000 /* where I/O BARs are placed */
#define PLATFORM_PCI_IO_COUNT 0x8000

/* ISA interrupt requests: the PIC's pins, and the I/O APIC's, but for the timer. */
#define PLATFORM_IRQ_TIMER 0
#define PLATFORM_IRQ_KEYBOARD 1
#define PLATFORM_IRQ_CASCADE 2
#define PLATFORM_IRQ_COM2 3
#define PLATFORM_IRQ_COM1 4
#define PLATFORM_IRQ_RTC 8
#define PLATFORM_IRQ_SCI 9
#define PLATFORM_IRQ_MOUSE 12
#define PLATFORM_TIMER_GSI 2	  /* IRQ 0 arrives at this pin of the I/O APIC (MADT override) */
#define PLATFORM_PCI_GSI_FIRST 16 /* INTA..INTD of slot s: pin 16 + (s + pin) % 4 */
#define PLATFORM_VIRTIO_MMIO_GSI_FIRST 20 /* the n-th device: pin 20 + n % 4 */
#define PLATFORM_IOAPIC_PINS 24

/* I/O APIC id: above every local APIC's. */
#define PLATFORM_IOAPIC_ID 0xfe

/* What PM1a_CNT.SLP_TYP means power-off (the DSDT's \_S5). */
#define PLATFORM_SLP_TYP_S5 5

/* Frequencies. */
#define PLATFORM_PIT_HZ 1193182ull
#define PLATFORM_PM_TIMER_HZ 3579545ull
#define PLATFORM_HPET_HZ 100000000ull /* period 10 ns = 10,000,000 fs */
