// One interrupt wire from a device to an interrupt controller. It carries "asserted" or not, never
// a voltage: whoever wires a machine takes care of active-low inputs.
#pragma once

namespace vmm {

class IrqLine {
  public:
    IrqLine() = default;
    IrqLine(const IrqLine&) = delete;
    IrqLine& operator=(const IrqLine&) = delete;
    virtual ~IrqLine() = default;

    // Drives the wire. Setting the level that it has already is no edge and changes nothing. A
    // device calls this without holding its lock, and in the order in which its output changed.
    virtual void set(bool level) = 0;
};

}  // namespace vmm
