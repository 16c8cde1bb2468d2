print("hostile")
